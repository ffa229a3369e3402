//! podman 4 with its CNI backend, on a [`Host`].
