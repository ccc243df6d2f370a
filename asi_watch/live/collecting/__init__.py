"""From files to brackets that are due: pure decisions of the one owner thread."""
