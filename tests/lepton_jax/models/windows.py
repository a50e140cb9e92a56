"""Kernel sizes and options of convolutions that every form must compute."""

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
