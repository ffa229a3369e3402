//! The build script of every plugin: links it statically where `plugins/build.rs` found all the
//! archives, so that it runs on whatever node it is copied to, and starts without a dynamic loader.
//! A plugin lives for two milliseconds; loading libraries would take a tenth of them.
//!
//! A debug build is linked as usual: cargo has every documentation test of the same `cargo test` look
//! in the directories that are named here, and such a program dies of half a static C library.

/// What functions of libnftnl.a that nobody calls ask of libmnl: sending, receiving, batches.
const NEVER_CALLED: [&str; 14] = [
    "mnl_cb_run",
    "mnl_nlmsg_batch_current",
    "mnl_nlmsg_batch_head",
    "mnl_nlmsg_batch_is_empty",
    "mnl_nlmsg_batch_next",
    "mnl_nlmsg_batch_size",
    "mnl_nlmsg_batch_start",
    "mnl_nlmsg_batch_stop",
    "mnl_socket_bind",
    "mnl_socket_close",
    "mnl_socket_get_portid",
    "mnl_socket_open",
    "mnl_socket_recvfrom",
    "mnl_socket_sendto",
];

fn main() {
    println!("cargo:rerun-if-changed=../plugins/link.rs");
    if std::env::var("PROFILE").as_deref() != Ok("release") {
        return;
    }
    let Ok(archives) = std::env::var("DEP_NETCORE_PLUGINS_ARCHIVES") else { return };
    println!("cargo:rustc-link-search=native={archives}");
    println!("cargo:rustc-link-arg=-static");
    println!("cargo:rustc-link-arg=-no-pie");
    for name in NEVER_CALLED {
        println!("cargo:rustc-link-arg=-Wl,--defsym={name}=abort");
    }
}
