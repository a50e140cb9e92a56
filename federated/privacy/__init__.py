"""Privacy of whole clients: noise on the sum of their updates."""
