//! What each tenant may ask of this node, so that one leaves room for others.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use crate::protocol::{ErrorReply, Refusal, Tenant, tenant};
use crate::time::Instant;

/// Tenants whose rates are known at a time. Accounts are made by operators: there are not many.
const TENANTS_MAX: usize = 10_000;
/// Who asked nothing for so long has its whole allowance again, and can be forgotten.
const FULL_AFTER: Duration = Duration::from_secs(1);

/// Counts the requests of each tenant against a rate: a bucket each that holds one second's worth.
pub struct Tenants {
    /// Requests per second; 0 for any number.
    rate: u64,
    buckets: Mutex<HashMap<Tenant, Bucket>>,
}

struct Bucket {
    left: f64,
    at: Instant,
}

impl Tenants {
    pub fn new(rate: u64) -> Self {
        Tenants {
            rate,
            buckets: Mutex::new(HashMap::new()),
        }
    }

    /// Whose request it is; none for a client outside of all tenants. With `counts` it counts against
    /// the tenant's rate, be it valid or not.
    ///
    /// # Errors
    /// `forbidden` for an account that cannot be a tenant, `overloaded` for a request too many.
    pub fn whose(
        &self,
        account: Option<&str>,
        counts: bool,
        now: Instant,
    ) -> Result<Option<Tenant>, Refusal> {
        let Some(account) = account else {
            return Ok(None);
        };
        let tenant = Tenant::of_account(account).ok_or_else(tenant::no_account)?;
        if counts {
            self.admit(&tenant, now)?;
        }
        Ok(Some(tenant))
    }

    fn admit(&self, tenant: &Tenant, now: Instant) -> Result<(), Refusal> {
        if self.rate == 0 {
            return Ok(());
        }
        let rate = self.rate as f64;
        let mut buckets = self.buckets.lock().expect("no holder panics");
        if !buckets.contains_key(tenant) {
            if buckets.len() >= TENANTS_MAX {
                buckets.retain(|_, bucket| now < bucket.at + FULL_AFTER);
            }
            if buckets.len() >= TENANTS_MAX {
                return Err(too_many("tenants that ask at once", TENANTS_MAX as u64));
            }
        }
        let bucket = buckets.entry(tenant.clone()).or_insert(Bucket {
            left: rate,
            at: now,
        });
        let passed = now.saturating_duration_since(bucket.at).as_secs_f64();
        bucket.left = (bucket.left + passed * rate).min(rate);
        bucket.at = now;
        if bucket.left < 1.0 {
            return Err(too_many("requests of this account in a second", self.rate));
        }
        bucket.left -= 1.0;
        Ok(())
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
            tenants.admit(&a, now).expect("within the rate");
        }
        let refusal = tenants.admit(&a, now).expect_err("one too many");
        assert_eq!((refusal.code, refusal.limit), (Code::Overloaded, Some(100)));
        tenants.admit(&b, now).expect("it has asked nothing");
        let later = now + Duration::from_millis(10);
        tenants
            .admit(&a, later)
            .expect("one more after a hundredth");
        assert!(tenants.admit(&a, later).is_err());
        let much_later = now + Duration::from_secs(3600);
        let admitted = (0..200).filter(|_| tenants.admit(&a, much_later).is_ok());
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
        assert!((0..10_000).all(|_| tenants.admit(&a, now).is_ok()));
    }
}
