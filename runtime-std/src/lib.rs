//! The plain operating system behind small types, for `ShadowMesh` drivers: clock, entropy, local addresses, TLS.
//!
//! ```text
//!   CLOCK_BOOTTIME ─▶ clock      getrandom ─▶ entropy      interfaces ─▶ candidates      identity ─▶ tls ─▶ TLS 1.3 both ways
//! ```

pub mod clock;
pub mod entropy;
pub mod identity;
pub mod interfaces;
pub mod tls;
