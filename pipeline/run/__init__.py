"""One run of one project: what is configured, what is built, which boards, and its transactions."""
