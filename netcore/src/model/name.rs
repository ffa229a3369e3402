//! Names that have been looked at. Network names and container ids end up in file names and
//! interface names in kernel requests, so both are checked once, here, and carried as types.

use std::fmt;
use std::str::FromStr;

use arrayvec::ArrayString;
use serde::{Deserialize, Serialize, Serializer};

/// The bytes of an interface's name, without the one that ends it (`IFNAMSIZ`, linux/if.h).
const INTERFACE_BYTES: usize = 15;

/// Why a name was refused: what was given, and what would have been accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{value:?} is not {expected}")]
pub struct InvalidName {
    /// The refused text.
    pub value: String,
    /// What is accepted instead.
    pub expected: &'static str,
}

macro_rules! checked_name {
    ($(#[$doc:meta])* $name:ident($text:ty), $check:expr, $expected:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
        #[serde(try_from = "String")]
        pub struct $name($text);

        impl $name {
            /// Checks `value`.
            ///
            /// # Errors
            /// [`InvalidName`] when it is not a name of this kind.
            pub fn new(value: impl Into<String>) -> Result<Self, InvalidName> {
                let value = value.into();
                let check: fn(&str) -> bool = $check;
                match <$text>::try_from(value.as_str()) {
                    Ok(text) if check(&value) => Ok(Self(text)),
                    _ => Err(InvalidName { value, expected: $expected }),
                }
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(value: &str) -> Result<Self, InvalidName> {
                Self::new(value)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;
            fn try_from(value: String) -> Result<Self, InvalidName> {
                Self::new(value)
            }
        }

        impl TryFrom<&str> for $name {
            type Error = InvalidName;
            fn try_from(value: &str) -> Result<Self, InvalidName> {
                Self::new(value)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.as_str().to_owned()
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }
    };
}

checked_name! {
    /// A network name or a container id: `[A-Za-z0-9][A-Za-z0-9_.-]*`, at most 200 bytes so that
    /// it still fits a file name (CNI spec 1.1.0, "Section 2: Execution Protocol").
    Name(String),
    |value| {
        value.len() <= 200
            && value.starts_with(|first: char| first.is_ascii_alphanumeric())
            && value.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
    },
    "a name of letters, digits, '_', '.' and '-' that starts with a letter or digit and has at most 200 bytes"
}

checked_name! {
    /// A network interface name as the kernel's `dev_valid_name` takes it: 1 to 15 bytes, not
    /// `.` or `..`, without `/`, `:` and white space; and not `all` or `default`, which are names of
    /// settings (`sysctl_dev_name_is_allowed`).
    InterfaceName(ArrayString<INTERFACE_BYTES>),
    |value| {
        !value.is_empty()
            && !matches!(value, "." | ".." | "all" | "default")
            && !value.contains(|c: char| c == '/' || c == ':' || c == '%' || c.is_whitespace() || c.is_control())
    },
    "an interface name of 1 to 15 bytes without '/', ':', '%' or white space, and not '.', '..', 'all' or 'default'"
}

impl InterfaceName {
    /// The bridge of a network that names none: `br-NETWORK`, or a hash where that is too long.
    pub(crate) fn for_bridge_of(network: &Name) -> Self {
        Self::new(format!("br-{network}"))
            .unwrap_or_else(|_| Self::numbered("br-", super::fingerprint(network.as_str().as_bytes())))
    }

    /// The tunnel of an overlay: `vxlan` and at most eight digits.
    pub(crate) fn for_vni(vni: u32) -> Self {
        Self::fitting(format_args!("vxlan{}", vni & super::OverlayConfig::MAX_VNI))
    }

    /// The encrypted tunnel of an overlay: `wgvni` and at most eight digits.
    pub(crate) fn for_encrypted_vni(vni: u32) -> Self {
        Self::fitting(format_args!("wgvni{}", vni & super::OverlayConfig::MAX_VNI))
    }

    /// A name for the host's own link on the master of a macvlan network.
    pub(crate) fn host_access(network: &Name) -> Self {
        Self::numbered("mvh", super::fingerprint(network.as_str().as_bytes()))
    }

    /// `lo`, which every namespace has.
    pub(crate) fn loopback() -> Self {
        Self::fitting(format_args!("lo"))
    }

    /// `?`, for an interface whose name cannot be known: the end of a pair that was taken to a
    /// namespace out of reach.
    pub(crate) fn unknown() -> Self {
        Self::fitting(format_args!("?"))
    }

    /// `cni0`, the bridge of a configuration that names none.
    pub(super) fn default_bridge() -> Self {
        Self::fitting(format_args!("cni0"))
    }

    /// `prefix` (at most four letters) and eleven hexadecimal digits of `number`: 15 bytes.
    pub(super) fn numbered(prefix: &'static str, number: u64) -> Self {
        Self::fitting(format_args!("{prefix}{:011x}", number & 0xfff_ffff_ffff))
    }

    /// A name that is known to fit.
    fn fitting(name: fmt::Arguments<'_>) -> Self {
        let mut text = ArrayString::new();
        let written = fmt::Write::write_fmt(&mut text, name);
        debug_assert!(written.is_ok(), "{name} is too long");
        Self(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_leave_a_directory_are_refused() {
        for bad in ["", "..", "../etc", "a/b", "a b", "-a", ".hidden", "ä", &"x".repeat(201)] {
            assert!(Name::new(bad).is_err(), "{bad:?} was accepted");
        }
        for good in ["a", "0", "k8s-pod_network.v2", &"x".repeat(200)] {
            assert!(Name::new(good).is_ok(), "{good:?} was refused");
        }
    }

    #[test]
    fn interface_names_follow_the_kernel() {
        for bad in ["", ".", "..", "a/b", "a:b", "a b", "a\tb", "sixteen_bytes_16", "eth%d"] {
            assert!(InterfaceName::new(bad).is_err(), "{bad:?} was accepted");
        }
        for good in ["lo", "eth0", "eth0.10", "fifteen_bytes15"] {
            assert!(InterfaceName::new(good).is_ok(), "{good:?} was refused");
        }
    }

    #[test]
    fn a_refusal_says_what_was_given_and_what_is_accepted() {
        let refusal = Name::new("a b").unwrap_err().to_string();
        assert!(refusal.contains("\"a b\"") && refusal.contains("letters, digits"), "{refusal}");
    }
}
