//! Descriptors, of which each connection takes one: as many as the kernel lets this process have.
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises what this process may have open to the most that it may raise itself; how many that is. A shell and a service manager
/// usually begin with 1,024.
pub fn raise() -> u64 {
    let now = getrlimit(Resource::Nofile);
    let most = Rlimit { current: now.maximum, maximum: now.maximum };
    let limit = if setrlimit(Resource::Nofile, most).is_ok() { most } else { now };
    limit.current.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_raised_stays_and_is_all_that_there_is() {
        let most = raise();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!((limit.current, limit.current.unwrap_or(u64::MAX)), (limit.maximum, most));
        assert_eq!(raise(), most);
    }
}
