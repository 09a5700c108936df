"""Networks in integers: quantisers in their graph, ranges from images, and what is left when the floats are gone."""
