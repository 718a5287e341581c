"""deploy.toml: its schema, reader, values and contradictions. Pure."""
