# SPDX-License-Identifier: MIT
"""The race of hmoe and its peers: scripts/bench peers."""
