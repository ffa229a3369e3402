//! What is heard of changes in the kernel.

use std::fs;

use super::*;
use crate::kernel::Losses;

const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";

#[test]
fn what_has_happened_until_now_is_heard_without_waiting() {
    with_kernel(|host| async move {
        fs::write(FORWARDING, "0").unwrap();
        let mut events = host.events().unwrap();
        let (mut earlier, mut later) = (Losses::default(), Losses::default());
        events.take(&mut later).unwrap();
        assert!(later.is_empty(), "{later:?}");
        // The runtime looks for nothing meanwhile: nobody waits.
        fs::write(FORWARDING, "1").unwrap();
        events.take(&mut later).unwrap();
        assert!(earlier.threw_all(&mut later), "{later:?}");
        assert!(!Losses::default().threw_all(&mut later), "it is left to the earlier");
        let mut off = Losses::default();
        fs::write(FORWARDING, "0").unwrap();
        events.take(&mut off).unwrap();
        assert!(!off.is_empty() && !Losses::default().threw_all(&mut off), "{off:?}");
    });
}
