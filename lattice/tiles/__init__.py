"""The fused joint: a Tiler at the bottom, and over it the full sum, its certificate, the path, and the gradients."""
