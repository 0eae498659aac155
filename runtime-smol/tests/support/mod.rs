//! Both runtimes by their doors, and stories that run on each of them.
use shadowmesh_runtime_std::{
    StartError,
    peer::{Peer, PeerOptions},
    relay::{Relay, RelayOptions},
};

/// The doors of one runtime.
#[derive(Clone, Copy)]
pub(crate) struct Runtime {
    #[allow(dead_code, reason = "not each file of tests has peers")]
    pub(crate) peer: fn(PeerOptions) -> Result<Peer, StartError>,
    pub(crate) relay: fn(RelayOptions) -> Result<Relay, StartError>,
}

/// One asynchronous thread.
pub(crate) const SMOL: Runtime = Runtime { peer: shadowmesh_runtime_smol::peer::start, relay: shadowmesh_runtime_smol::relay::start };

/// One thread that waits for all descriptors at once.
pub(crate) const THREADS: Runtime = Runtime { peer: shadowmesh_runtime_std::peer::start, relay: shadowmesh_runtime_std::relay::start };

/// Makes each story a test on each runtime: a module a runtime, a function a story.
#[macro_export]
macro_rules! stories {
    ([$($module:ident: $runtime:expr),+] $($story:ident),+ $(,)?) => { stories!(@ [$($module: $runtime),+] ($($story),+)); };
    (@ [$($module:ident: $runtime:expr),+] $stories:tt) => { $(stories!(@ $module, $runtime, $stories);)+ };
    (@ $module:ident, $runtime:expr, ($($story:ident),+)) => {
        mod $module {
            #[allow(unused_imports, reason = "where the runtime is a path")]
            use super::*;
            $(#[test]
            fn $story() {
                super::$story($runtime);
            })+
        }
    };
}
