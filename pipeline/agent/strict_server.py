"""An MCP server whose tools refuse arguments that they do not have.

Knows the `mcp` package's servers and pydantic's errors; not which tools there are. Invariant: a tool runs only if each
argument of the call is one of its parameters. The package drops the others, so that a call with a misspelt name would
do something else than was asked (deploy to the default board, read the last report) and say that it went well.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import CallToolResult, InputRequiredResult, Tool
from pydantic import ValidationError

from pipeline.text import did_you_mean


class StrictServer(MCPServer):
    """`MCPServer` that says so in its tools' schemas, and that tells wrong arguments as a fact and a hint."""

    async def list_tools(self) -> list[Tool]:
        """The tools, each with `"additionalProperties": false` in its schema."""
        tools = await super().list_tools()
        return [
            tool.model_copy(update={"input_schema": {**tool.input_schema, "additionalProperties": False}})
            for tool in tools
        ]

    async def call_tool(
        self, name: str, arguments: dict[str, Any], context: Context[Any, Any] | None = None
    ) -> CallToolResult | InputRequiredResult:
        """Call a tool. Raises ToolError as the base class does, and for arguments that the tool does not have."""
        for tool in await super().list_tools():
            if tool.name == name:
                refuse_unknown(name, arguments, tool.input_schema.get("properties", {}))
        try:
            return await super().call_tool(name, arguments, context)
        except ToolError as error:
            if isinstance(error.__cause__, ValidationError):
                raise ToolError(wrong_values(name, error.__cause__)) from None
            raise


def refuse_unknown(tool: str, arguments: Iterable[str], parameters: Mapping[str, Any]) -> None:
    """Raises ToolError when one of the arguments' names is no parameter of the tool."""
    unknown = sorted(set(arguments) - set(parameters))
    if unknown:
        meant = did_you_mean(unknown[0], parameters)
        hint = f"use {', '.join(parameters)}" if parameters else "call it without arguments"
        raise ToolError(f"{tool}: error: there is no argument {unknown[0]!r}{meant}\nhint: {hint}")


def wrong_values(tool: str, error: ValidationError) -> str:
    """What is wrong with the first argument that does not fit, and what to do."""
    first = error.errors(include_url=False)[0]
    name = ".".join(map(str, first["loc"]))
    if first["type"] == "missing":
        return f"{tool}: error: argument {name!r} is missing\nhint: give it; the tool's schema says what it takes"
    value = repr(first["input"])
    shown = value if len(value) <= SHOWN_CHARS else f"{value[:SHOWN_CHARS]}..."
    fact = first["msg"][:1].lower() + first["msg"][1:]
    return f"{tool}: error: argument {name!r} is {shown}: {fact}\nhint: give what the tool's schema says"


SHOWN_CHARS = 60
"""How much of a wrong value is shown."""
