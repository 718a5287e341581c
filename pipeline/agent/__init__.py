"""The project as tools for an AI agent, over the Model Context Protocol.

Invariant: an agent gets nothing that a person does not get: each tool is a `doit` of the project, with its exit code,
its report and its leases, and only devices of `deploy.toml` are reached.
"""
