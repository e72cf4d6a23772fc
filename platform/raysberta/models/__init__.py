"""Models from outside, and how any model folder describes itself: fetch, load, pool, layout."""
