"""Other people's formats as values: tables, images, manifests, depfiles, ELF, JSONC, TOML positions, JSON-RPC. Pure."""
