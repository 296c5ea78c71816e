"""The API of the shop's frontend: products, placing an order, looking at one. `docs/api.md` describes it."""
