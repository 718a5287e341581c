"""The stages of a deploy as doit tasks. Declarations only: what they do is in pipeline/, what they build in deploy.toml."""

from pipeline.tasks import *  # noqa: F403
