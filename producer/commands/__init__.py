"""The commands of `imagemill`, by what they take: a manifest, a job or an output."""
