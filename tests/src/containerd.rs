//! containerd over CRI, on a [`Host`].
