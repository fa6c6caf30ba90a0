"""Those who do the same work. A package is imported where its peer is made."""
