//! What each tenant may ask of this node, so that one leaves room for others.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use crate::protocol::tenant::seat::{Seat, Seats};
use crate::protocol::{ErrorReply, Refusal, Tenant, tenant};
use crate::time::Instant;

/// Tenants whose rates are known at a time. Accounts are made by operators: there are not many.
const TENANTS_MAX: usize = 10_000;
/// Requests of one tenant that this node has in hand: less than any queue has room for that tenants share.
const IN_HAND_MAX: usize = 8_000;
/// Who asked nothing for so long has its whole allowance again, and can be forgotten.
const FULL_AFTER: Duration = Duration::from_secs(1);

/// Counts the requests of each tenant: against a rate, by a bucket each that holds one second's worth, and
/// while they are in hand.
pub struct Tenants {
    /// Requests per second; 0 for any number.
    rate: u64,
    asking: Mutex<HashMap<Tenant, Asking>>,
}

/// What one tenant asks.
struct Asking {
    /// What is left of a second's worth of requests, as of a moment.
    left: f64,
    at: Instant,
    in_hand: Seats,
}

impl Tenants {
    pub fn new(rate: u64) -> Self {
        Tenants {
            rate,
            asking: Mutex::new(HashMap::new()),
        }
    }

    /// Whose request it is, and what it holds while it is in hand; none for a client outside of all
    /// tenants. With `counts` it counts against the tenant's rate, be it valid or not.
    ///
    /// # Errors
    /// `forbidden` for an account that cannot be a tenant, `overloaded` for a request too many.
    pub fn whose(
        &self,
        account: Option<&str>,
        counts: bool,
        now: Instant,
    ) -> Result<Option<(Tenant, Seat)>, Refusal> {
        let Some(account) = account else {
            return Ok(None);
        };
        let tenant = Tenant::of_account(account).ok_or_else(tenant::no_account)?;
        let seat = self.admit(&tenant, counts, now)?;
        Ok(Some((tenant, seat)))
    }

    fn admit(&self, tenant: &Tenant, counts: bool, now: Instant) -> Result<Seat, Refusal> {
        let rate = self.rate as f64;
        let mut asking = self.asking.lock().expect("no holder panics");
        if !asking.contains_key(tenant) {
            if asking.len() >= TENANTS_MAX {
                asking.retain(|_, one| now < one.at + FULL_AFTER || !one.in_hand.are_free());
            }
            if asking.len() >= TENANTS_MAX {
                return Err(too_many(
                    "tenants with requests at once",
                    TENANTS_MAX as u64,
                ));
            }
        }
        let one = asking.entry(tenant.clone()).or_insert(Asking {
            left: rate,
            at: now,
            in_hand: Seats::default(),
        });
        if counts && self.rate > 0 {
            let passed = now.saturating_duration_since(one.at).as_secs_f64();
            one.left = (one.left + passed * rate).min(rate);
            one.at = now;
            if one.left < 1.0 {
                return Err(too_many("requests per second of this account", self.rate));
            }
            one.left -= 1.0;
        }
        let seat = one.in_hand.take(IN_HAND_MAX);
        seat.ok_or_else(|| too_many("requests of this account in progress", IN_HAND_MAX as u64))
    }
}

fn too_many(what: &str, limit: u64) -> Refusal {
    Box::new(ErrorReply::overloaded(what, limit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Code;
    use crate::time;

    #[test]
    fn a_tenant_that_asks_too_much_is_refused_and_others_are_not() {
        let tenants = Tenants::new(100);
        let [a, b] = ["A", "B"].map(|account| Tenant::of_account(account).expect("valid"));
        let now = time::now();
        for _ in 0..100 {
            tenants.admit(&a, true, now).expect("within the rate");
        }
        let refusal = tenants.admit(&a, true, now).expect_err("one too many");
        assert_eq!((refusal.code, refusal.limit), (Code::Overloaded, Some(100)));
        tenants.admit(&b, true, now).expect("it has asked nothing");
        let later = now + Duration::from_millis(10);
        tenants
            .admit(&a, true, later)
            .expect("one more after a hundredth");
        assert!(tenants.admit(&a, true, later).is_err());
        let much_later = now + Duration::from_secs(3600);
        let admitted = (0..200).filter(|_| tenants.admit(&a, true, much_later).is_ok());
        assert_eq!(
            admitted.count(),
            100,
            "a second's worth, however long it was silent"
        );
    }

    #[test]
    fn no_rate_is_no_bound() {
        let tenants = Tenants::new(0);
        let a = Tenant::of_account("A").expect("valid");
        let now = time::now();
        assert!((0..10_000).all(|_| tenants.admit(&a, true, now).is_ok()));
    }

    #[test]
    fn what_a_tenant_has_in_hand_is_bounded_and_leaves_room_for_another() {
        let tenants = Tenants::new(0);
        let [a, b] = ["A", "B"].map(|account| Tenant::of_account(account).expect("valid"));
        let now = time::now();
        let ask = |tenant| tenants.admit(tenant, false, now);
        let mut in_hand: Vec<Seat> = (0..IN_HAND_MAX)
            .map(|_| ask(&a).expect("there is room"))
            .collect();
        let refusal = ask(&a).expect_err("one too many");
        let limit = Some(IN_HAND_MAX as u64);
        assert_eq!((refusal.code, refusal.limit), (Code::Overloaded, limit));
        ask(&b).expect("it has nothing in hand");
        // A request is in hand until nobody holds its seat any more.
        let copy = in_hand.pop().expect("some").clone();
        let again = ask(&a).map(|_| ()).expect_err("a copy is left");
        drop(copy);
        assert_eq!(again.code, Code::Overloaded);
        ask(&a).expect("one is answered");
    }
}
