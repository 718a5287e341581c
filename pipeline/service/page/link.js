// The WebSocket to the service: reconnects, numbers its questions, and says how it is.

const FIRST_MS = 500;
const LONGEST_MS = 5000;
const PATIENCE = 3;

export class Link {
  /** `heard(message)` for each message, `state(name, text)` for `wait`, `good`, `bad`. */
  constructor(heard, state) {
    this.heard = heard;
    this.state = state;
    this.failures = 0;
    this.number = 0;
    this.waiting = new Map();
    this.opened = () => {};
    this.open();
  }

  open() {
    const address = new URL("live", location.href);
    address.protocol = "ws:";
    address.search = address.hash = "";
    this.socket = new WebSocket(address);
    this.socket.onopen = () => {
      this.failures = 0;
      this.state("good", "connected");
      this.opened();
    };
    this.socket.onmessage = (event) => this.take(JSON.parse(event.data));
    this.socket.onclose = () => this.lost();
  }

  take(message) {
    if (message.is === "answer" && this.waiting.has(message.n)) {
      this.waiting.get(message.n)(message.failure);
      this.waiting.delete(message.n);
    }
    this.heard(message);
  }

  /** Ask; resolves to a failure or null. */
  ask(message) {
    if (this.socket.readyState !== WebSocket.OPEN) {
      return Promise.resolve({ where: "the page", message: "the service is not connected", hint: "wait until it is back" });
    }
    const n = ++this.number;
    this.socket.send(JSON.stringify({ ...message, n }));
    return new Promise((resolve) => this.waiting.set(n, resolve));
  }

  async lost() {
    for (const resolve of this.waiting.values()) resolve({ where: "the page", message: "the service went away", hint: "ask again when it is back" });
    this.waiting.clear();
    this.failures += 1;
    this.state("wait", "reconnecting");
    const delay = Math.min(FIRST_MS * 2 ** (this.failures - 1), LONGEST_MS);
    setTimeout(() => this.open(), delay);
    if (this.failures >= PATIENCE) this.state("bad", await this.why());
  }

  async why() {
    try {
      const answer = await fetch("api/devices");
      return answer.status === 401 ? "restarted: doit serve --open" : "reconnecting";
    } catch {
      return "no service";
    }
  }
}
