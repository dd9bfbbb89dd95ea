# SPDX-License-Identifier: MIT
"""The competitors that are Python packages; the others are C++ files in the same folder."""
