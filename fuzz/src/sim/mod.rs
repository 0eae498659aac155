//! The simulator: a seed is a network, what befalls it, and a verdict. The same seed and the same code give the same bytes.
//!
//! ```text
//!   seed ──▶ story ──▶ Plan, [Step] ──▶ run: Stage over World ──▶ Model after each event ──▶ Account, or Violation
//!                          ▲                                                                      │
//!   fuzzer's bytes ────────┤   shrink: fewer steps, simpler plan, still the same rule broken ◀────┘
//!   proptest ──────────────┘
//! ```
mod ending;
mod ledger;
mod model;
mod plan;
mod run;
mod shrink;
mod soak;
mod stage;
mod standin;
mod step;
mod switches;
mod twins;

pub use ledger::{Ledger, Watched};
pub use model::{Breach, Model, Rule};
pub use plan::{Direct, Home, Mode, PEERS_MAX, Plan, Quality};
pub use run::{Account, Crypto, Options, Violation, run, run_with, scenario};
pub use shrink::{Shrunk, Trial, shrink};
pub use soak::{Mesh, hours};
pub use standin::StandIn;
pub use step::{Deed, Step, any_step, story};
pub use switches::switches;
pub use twins::twins;
