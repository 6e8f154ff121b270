"""Names of models in a manifest, resolved to exact weights: models, ControlNets, IP-Adapters."""
