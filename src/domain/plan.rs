//! What the reconciler must do to make the running workers match the inventory.
