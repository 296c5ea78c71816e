"""The tour: a practice shop on a busy day, and a browser that takes the pictures of docs/tour.md."""
