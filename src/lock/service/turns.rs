//! Whose turn it is to have a list made. Lists are made by the leader, on the thread that all that it does goes
//! through: a few at a time leave room for everything else, however many are asked for.

use std::collections::HashMap;
use std::sync::Mutex;

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::protocol::{Code, ErrorReply, Refusal, Tenant};
use crate::time::Instant;

/// Lists that this node's clients have made at once.
const AT_ONCE: usize = 4;
/// Requests of one tenant that have their turn or wait for it: turns are given in the order of asking.
const OF_TENANT_MAX: usize = 16;

pub(super) struct Turns {
    all: Semaphore,
    of_tenants: Mutex<HashMap<Tenant, usize>>,
}

/// Held while a list is made.
pub(super) struct Turn<'a> {
    _place: Place<'a>,
    _permit: SemaphorePermit<'a>,
}

/// Counts a request of a tenant.
struct Place<'a>(Option<(&'a Turns, Tenant)>);

impl Turns {
    pub(super) fn new() -> Self {
        Turns {
            all: Semaphore::new(AT_ONCE),
            of_tenants: Mutex::default(),
        }
    }

    /// # Errors
    /// `overloaded` when its tenant asks for too many lists at once, `timeout` when the turn does not come until
    /// the deadline.
    pub(super) async fn take(
        &self,
        tenant: Option<&Tenant>,
        deadline: Instant,
    ) -> Result<Turn<'_>, Refusal> {
        let place = self.enter(tenant)?;
        let permit = tokio::time::timeout_at(deadline, self.all.acquire()).await;
        let permit = permit.map_err(|_| late())?;
        Ok(Turn {
            _place: place,
            _permit: permit.expect("it is never closed"),
        })
    }

    fn enter(&self, tenant: Option<&Tenant>) -> Result<Place<'_>, Refusal> {
        let Some(tenant) = tenant else {
            return Ok(Place(None));
        };
        let mut of_tenants = self.of_tenants.lock().expect("no holder panics");
        let own = of_tenants.entry(tenant.clone()).or_default();
        if *own >= OF_TENANT_MAX {
            let what = "lists of this account in progress";
            return Err(ErrorReply::overloaded(what, OF_TENANT_MAX as u64).into());
        }
        *own += 1;
        Ok(Place(Some((self, tenant.clone()))))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let Some((turns, tenant)) = &self.0 else {
            return;
        };
        let mut of_tenants = turns.of_tenants.lock().expect("no holder panics");
        let own = of_tenants.get_mut(tenant).expect("it was counted");
        *own -= 1;
        if *own == 0 {
            of_tenants.remove(tenant);
        }
    }
}

fn late() -> Refusal {
    ErrorReply::new(Code::Timeout, "other lists were made until the deadline").into()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::time;

    fn tenant(account: &str) -> Tenant {
        Tenant::of_account(account).expect("valid")
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_that_does_not_come_ends_with_the_deadline() {
        let turns = Turns::new();
        let until = time::now() + Duration::from_secs(1);
        let mut taken = Vec::new();
        for _ in 0..AT_ONCE {
            taken.push(turns.take(None, until).await.expect("there is room"));
        }
        let late = turns.take(None, until).await.err().expect("no turn");
        assert_eq!((late.code, time::now()), (Code::Timeout, until));
        taken.pop();
        let until = time::now() + Duration::from_secs(1);
        turns.take(None, until).await.expect("one has ended");
    }

    #[tokio::test(start_paused = true)]
    async fn a_tenant_takes_so_many_places_and_gives_them_back() {
        let turns = Turns::new();
        let [a, b] = ["A", "B"].map(tenant);
        let places: Vec<_> = (0..OF_TENANT_MAX)
            .map(|_| turns.enter(Some(&a)).expect("there is room"))
            .collect();
        let refusal = turns.enter(Some(&a)).err().expect("one too many");
        assert_eq!(refusal.code, Code::Overloaded);
        turns.enter(Some(&b)).expect("it has asked for nothing");
        drop(places);
        turns.enter(Some(&a)).expect("all have ended");
        assert!(turns.of_tenants.lock().expect("no panic").is_empty());
    }
}
