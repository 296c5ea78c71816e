"""The ground the apps stand on: money, the outbox, the engine's client. It knows no order and no payment."""
