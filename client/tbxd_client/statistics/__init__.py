"""Statistics of arrays that merge: their moments, and the counts of their histogram. Client and daemon use them.

numpy is imported in functions: whoever has arrays has loaded it, and a writer is made without it.
"""
