//! A session that is kept alive in the background, and the locks that live with it.
//!
//! One renewer keeps any number of locks: what is acquired by [`Session::acquire`] needs none of its
//! own. When the session is lost, so is every lock of it, and each [`Lease`] says so.
//!
//! ```no_run
//! # use mufakat::client::{Client, ConnectOptions};
//! # use mufakat::protocol::{lock::Acquire, session::Open};
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::connect(&ConnectOptions::default()).await?;
//! let session = client.open_session(&Open::new(10_000)).await?;
//! let orders = session.acquire(&Acquire::new("orders")).await?;
//! let stock = session.acquire(&Acquire::new("stock")).await?;
//! stock.check()?; // Right before each use of what it protects.
//! orders.release().await?;
//! session.close().await?; // And with it what is still held.
//! # Ok(())
//! # }
//! ```

use std::sync::Arc;
use std::time::Duration;

use crate::client::kept::{Kept, LeaseLost, Renewal};
use crate::client::{Client, ClientError, Lease};
use crate::protocol::lock::Acquire;
use crate::protocol::session::{Closed, One, Open};
use crate::time;

/// A session that is kept alive. Dropping it and all its leases stops that, and the session ends by
/// itself with all that it holds; close it to let the next ones in at once.
#[derive(Debug)]
pub struct Session {
    client: Client,
    id: String,
    kept: Arc<Kept>,
}

impl Client {
    /// Opens a session and keeps it alive.
    ///
    /// # Errors
    /// As those of [`Client::session_open`].
    pub async fn open_session(&self, request: &Open) -> Result<Session, ClientError> {
        let asked_at = time::boot_now();
        let opened = self.session_open(request).await?;
        let ttl = Duration::from_millis(opened.ttl_ms);
        Ok(Session::keep(self, opened.session, ttl, (asked_at, ttl)))
    }

    /// Keeps a session alive that somebody else opened.
    ///
    /// # Errors
    /// `session_expired` and `session_not_found` when it is over.
    pub async fn join_session(&self, id: &str) -> Result<Session, ClientError> {
        let one = One::new(id);
        let ttl = Duration::from_millis(self.session_get(&one).await?.ttl_ms);
        let asked_at = time::boot_now();
        let left = self.session_keepalive(&one).await?.expires_in_ms;
        let left = Duration::from_millis(left);
        Ok(Session::keep(self, one.session, ttl, (asked_at, left)))
    }
}

impl Session {
    fn keep(
        client: &Client,
        id: String,
        ttl: Duration,
        lasts: (time::BootInstant, Duration),
    ) -> Session {
        let renewal = Renewal::Session(One::new(&id));
        Session {
            kept: Arc::new(Kept::start(client.clone(), renewal, ttl, lasts)),
            client: client.clone(),
            id,
        }
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whether the session surely lives at this moment.
    ///
    /// # Errors
    /// From the moment on at which nobody can vouch for it.
    pub fn check(&self) -> Result<(), LeaseLost> {
        self.kept.check()
    }

    /// Waits until the session is lost, and with it every lock that it held.
    pub async fn lost(&self) -> LeaseLost {
        self.kept.lost().await
    }

    /// Asks for a lock that lives with this session, and ends earlier only if `ttl_ms` says so. May be
    /// dropped as [`Client::acquire`].
    ///
    /// # Errors
    /// As those of [`Client::acquire`], and `session_expired` when this session is over.
    pub async fn acquire(&self, request: &Acquire) -> Result<Lease, ClientError> {
        let request = Acquire {
            session: Some(self.id.clone()),
            ..request.clone()
        };
        self.client
            .keep_acquired(&request, Some(self.kept.clone()))
            .await
    }

    /// Ends the session and all that it holds and waits for. Its leases are lost from the first moment on.
    ///
    /// # Errors
    /// As those of [`Client::session_close`]; what it holds then ends with it, by itself.
    pub async fn close(self) -> Result<Closed, ClientError> {
        self.kept.end(LeaseLost::SessionClosed);
        self.client.session_close(&One::new(self.id)).await
    }
}
