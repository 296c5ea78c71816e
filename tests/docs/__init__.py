"""That what docs/ say is so: links, and the code of the pages about extending the shop."""
