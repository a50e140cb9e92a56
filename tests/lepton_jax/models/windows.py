"""Convolutions and poolings that every form must compute, and where oneDNN's can be tested."""

import pytest

from lepton_jax.models import onednn

needs_onednn = pytest.mark.skipif(onednn.missing() is not None, reason=f"{onednn.missing()}")

# Convolutions: the kernel's size, options.
WINDOWS: list[tuple[tuple, dict]] = [
    ((3, 3), {"window_strides": (1, 1), "padding": "SAME"}),
    ((3, 3), {"window_strides": (2, 2), "padding": "SAME"}),
    ((5, 5), {"window_strides": (1, 1), "padding": "VALID"}),
    ((1, 1), {"window_strides": (2, 2), "padding": "SAME"}),
    ((2, 3), {"window_strides": (3, 2), "padding": "VALID"}),
    ((3, 3), {"window_strides": (2, 1), "padding": ((1, 0), (2, 3))}),
    ((3, 2), {"window_strides": (1, 2), "padding": "SAME", "rhs_dilation": (2, 3)}),
    ((3, 3), {"window_strides": (2, 2), "padding": "SAME", "feature_group_count": 2}),
    ((3, 3), {"window_strides": (1, 1), "padding": "VALID", "feature_group_count": 4}),
]

# Poolings: the image's size, window, stride, padding.
POOLS = [
    ((6, 8), 2, 2, "VALID"),
    ((7, 9), 2, 2, "VALID"),
    ((7, 5), 2, 2, "SAME"),
    ((8, 7), 3, 2, "SAME"),
    ((5, 6), 3, 1, "SAME"),
    ((8, 10), 3, 3, "VALID"),
    ((5, 4), 2, 1, "VALID"),
    ((4, 4), 4, 4, "VALID"),
]
