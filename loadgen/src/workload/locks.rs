//! Users that take locks and give them back: each its own, or some that all share.

use std::time::Duration;

use mufakat::client::{Client, ClientError};
use mufakat::protocol::lock::{Acquire, Acquired, Mode, Release, Wanted};
use rand::RngExt;
use tokio::time::Instant;

use super::resource::RunName;
use super::{Failure, Random, Seat, Turn, Workload, milliseconds, timeout_ms};
use crate::check::Shared;
use crate::check::locks::{Asked, LockCheck};
use crate::recorder::Operation;

const ACQUIRE: Operation = Operation(0);
const RELEASE: Operation = Operation(1);

/// How much longer than the hold a lease is.
const LEASE_BEYOND_HOLD: Duration = Duration::from_secs(30);

/// Users that take locks and give them back.
pub struct Locks {
    pub run: RunName,
    /// Locks that all users share; `None`: each has its own.
    pub shared_locks: Option<u32>,
    /// How many of the shared ones are taken together.
    pub set: u32,
    /// How many of the rounds take their locks in shared mode, 0 to 1.
    pub shared_mode: f64,
    /// How long a lock is held.
    pub hold: Duration,
    /// How long an acquire waits for the lock.
    pub wait: Duration,
    /// How long a request may take, beyond the wait.
    pub timeout: Duration,
    pub check: Shared<LockCheck>,
}

/// One user.
pub struct User {
    client: Client,
    random: Random,
    /// The same in every round, so that a lock whose release was not answered is granted again at once.
    owner: String,
}

impl Workload for Locks {
    type User = User;

    fn name(&self) -> &'static str {
        "locks"
    }

    fn operations(&self) -> &'static [&'static str] {
        &["lock.acquire", "lock.release"]
    }

    /// Users that share locks are in each other's way, as they are meant to be.
    fn foreseen(&self) -> &'static [&'static str] {
        match self.shared_locks {
            Some(_) => &["lock_held", "wait_timeout", "deadlock"],
            None => &[],
        }
    }

    fn prepare(&self, seat: Seat) -> User {
        User {
            client: seat.client,
            random: seat.random,
            owner: self.run.with(seat.number),
        }
    }

    async fn execute(&self, user: &mut User, intended: Instant, turn: &Turn) {
        let resources = self.resources(user);
        let mode = match user.random.random_bool(self.shared_mode) {
            true => Mode::Shared,
            false => Mode::Exclusive,
        };
        let acquire = self.acquire(user, &resources, mode);
        let ttl = self.hold + LEASE_BEYOND_HOLD;
        let asked = self
            .check
            .tell(|check, now| check.asks(now, &user.owner, resources, mode, ttl));
        let request = user.client.acquire(&acquire);
        let (result, _) = turn.sample(ACQUIRE, intended, request).await;
        self.tell_acquired(asked.as_ref(), &result);
        let Some(acquired) = turn.pause_after_failure(result).await else {
            return;
        };
        let mut release_at = Instant::now();
        if !self.hold.is_zero() {
            release_at = turn.pacer.pause(release_at, self.hold).await;
        }
        self.release(user, acquired, asked.as_ref(), release_at, turn)
            .await;
    }
}

impl Locks {
    fn resources(&self, user: &mut User) -> Vec<String> {
        let Some(number) = self.shared_locks else {
            return vec![user.owner.clone()];
        };
        let mut chosen = Vec::new();
        while chosen.len() < self.set as usize {
            let one = user.random.random_range(0..number);
            if !chosen.contains(&one) {
                chosen.push(one);
            }
        }
        let name = |one| self.run.with(format!("shared.{one}"));
        chosen.into_iter().map(name).collect()
    }

    fn acquire(&self, user: &User, resources: &[String], mode: Mode) -> Acquire {
        let mut acquire = Acquire {
            owner: Some(user.owner.clone()),
            mode,
            ttl_ms: milliseconds(self.hold + LEASE_BEYOND_HOLD),
            wait_ms: milliseconds(self.wait).unwrap_or(0),
            timeout_ms: timeout_ms(self.timeout + self.wait),
            ..Acquire::default()
        };
        match resources {
            [one] => acquire.resource.clone_from(one),
            several => {
                let wanted = |resource: &String| Wanted {
                    resource: resource.clone(),
                    ..Wanted::default()
                };
                acquire.resources = several.iter().map(wanted).collect();
            }
        }
        acquire
    }

    async fn release(
        &self,
        user: &User,
        acquired: Acquired,
        asked: Option<&Asked>,
        intended: Instant,
        turn: &Turn,
    ) {
        let mut release = Release::of(&acquired);
        release.timeout_ms = milliseconds(self.timeout);
        let Acquired { token, .. } = acquired;
        if let Some(asked) = asked {
            self.check
                .tell(|check, now| check.releases(now, asked, token.0));
        }
        let request = user.client.release(&release);
        let (result, _) = turn.sample(RELEASE, intended, request).await;
        if let Some(asked) = asked {
            let code = result.as_ref().err().map(|error| error.fault().code);
            self.check
                .tell(|check, now| check.released(now, asked, token.0, code));
        }
        turn.pause_after_failure(result).await;
    }

    fn tell_acquired(&self, asked: Option<&Asked>, result: &Result<Acquired, ClientError>) {
        let Some(asked) = asked else { return };
        self.check.tell(|check, now| match result {
            Ok(acquired) => check.granted(now, asked, acquired.token.0),
            Err(error) => {
                let fault = error.fault();
                check.not_granted(now, asked, fault.code, fault.unknown);
            }
        });
    }
}
