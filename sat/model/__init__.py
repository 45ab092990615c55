"""The Streaming Audio Transformer: configurations, network, front end, streaming and batched inference."""
