"""The stages of a deploy as doit tasks. Declarations only: pipeline/ says what they do, deploy.toml what they build."""

from pipeline.tasks import *  # noqa: F403
