//! The server: two listeners, one of them not for the public.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
};

use actix_web::{
    App, Error, HttpServer,
    body::MessageBody,
    dev::{Server, ServerHandle, ServiceFactory, ServiceRequest, ServiceResponse},
    middleware::from_fn,
    web::{self, Data, ServiceConfig},
};
use chopmark_domain::{Services, lookup::PublicLedger};

use crate::{
    config::GatewayConfig,
    edge::edge,
    routes,
    state::{Process, Shared},
};

/// Workers of the internal listener: one scraper and one prober.
const INTERNAL_WORKERS: usize = 1;

/// A gateway, ready to serve.
#[derive(Clone)]
pub struct Gateway {
    shared: Arc<Shared>,
    more: Option<Routes>,
}

/// Routes of somebody else's on the public listener.
type Routes = Arc<dyn Fn(&mut ServiceConfig) + Send + Sync>;

impl Gateway {
    /// A gateway over wired use cases. `metrics` renders the process's metrics for the internal
    /// listener; the recorder behind it has to be installed before.
    #[must_use]
    pub fn new(
        services: Arc<Services>,
        config: GatewayConfig,
        metrics: impl Fn() -> String + Send + Sync + 'static,
    ) -> Self {
        let mut start = [0; 8];
        // Ids of requests are names for the log; without randomness the clock tells them apart.
        if services.ports().random.fill(&mut start).is_err() {
            start = services.ports().clock.now_ms().to_be_bytes();
        }
        let process = Arc::new(Process::new(u64::from_be_bytes(start), config, Box::new(metrics)));
        let shared = Shared::new(Arc::clone(&services.ledger), Some(services), process);
        Self { shared: Arc::new(shared), more: None }
    }

    /// Serves the sandbox beside the network of this gateway: to its keys, and to everybody under `/sandbox`.
    #[must_use]
    pub fn with_sandbox(self, services: Arc<Services>) -> Self {
        Self { shared: Arc::new(self.shared.with_sandbox(services)), ..self }
    }

    /// The read interface of a member's node: what anybody may look up, without database, queue or
    /// key. `start` is a random number by which requests of two processes are told apart.
    #[must_use]
    pub fn reader(
        ledger: Arc<PublicLedger>,
        start: u64,
        config: GatewayConfig,
        metrics: impl Fn() -> String + Send + Sync + 'static,
    ) -> Self {
        let process = Arc::new(Process::new(start, config, Box::new(metrics)));
        Self { shared: Arc::new(Shared::new(ledger, None, process)), more: None }
    }

    /// Serves more on the public listener, behind the same bounds and limits.
    #[must_use]
    pub fn with_routes(mut self, more: impl Fn(&mut ServiceConfig) + Send + Sync + 'static) -> Self {
        self.more = Some(Arc::new(more));
        self
    }

    /// The application of the public listener; every worker builds its own.
    pub fn public_app(
        &self,
    ) -> App<
        impl ServiceFactory<
            ServiceRequest,
            Config = (),
            Response = ServiceResponse<impl MessageBody + use<>>,
            Error = Error,
            InitError = (),
        > + use<>,
    > {
        let routes = if self.shared.gateway_services().is_some() { routes::public } else { routes::reader };
        self.app(routes, self.more.clone())
    }

    /// The application of the internal listener.
    pub fn internal_app(
        &self,
    ) -> App<
        impl ServiceFactory<
            ServiceRequest,
            Config = (),
            Response = ServiceResponse<impl MessageBody + use<>>,
            Error = Error,
            InitError = (),
        > + use<>,
    > {
        self.app(routes::internal, None)
    }

    fn app(
        &self,
        routes: fn(&mut ServiceConfig, &[&'static str]),
        more: Option<Routes>,
    ) -> App<
        impl ServiceFactory<
            ServiceRequest,
            Config = (),
            Response = ServiceResponse<impl MessageBody + use<>>,
            Error = Error,
            InitError = (),
        > + use<>,
    > {
        let networks: Vec<_> = self.shared.networks().map(|shared| shared.network).collect();
        let beside = self.shared.beside.clone();
        App::new()
            .app_data(Data::from(Arc::clone(&self.shared)))
            .configure(move |config| {
                if let Some(more) = &more {
                    more(config);
                }
                if let Some(sandbox) = beside {
                    let scope = web::scope(sandbox.base).app_data(Data::from(sandbox));
                    config.service(scope.configure(|config| routes(config, &networks)));
                }
                routes(config, &networks);
            })
            .wrap(from_fn(edge))
    }

    /// Starts serving on bound listeners. Call within a Tokio runtime and await
    /// [`Serving::run`]; signals are the caller's business.
    pub fn serve(&self, public: TcpListener, internal: TcpListener) -> io::Result<Serving> {
        let addresses = (public.local_addr()?, internal.local_addr()?);
        let (gateway, config) = (self.clone(), &self.shared.config);
        let mut server = HttpServer::new(move || gateway.public_app())
            .keep_alive(config.keep_alive)
            .client_request_timeout(config.head_timeout)
            .max_connections(config.connections_per_worker_max)
            .shutdown_timeout(config.shutdown.as_secs())
            .disable_signals();
        if let Some(workers) = config.workers {
            server = server.workers(workers);
        }
        let gateway = self.clone();
        let internal_server = HttpServer::new(move || gateway.internal_app())
            .workers(INTERNAL_WORKERS)
            .shutdown_timeout(1)
            .disable_signals();
        Ok(Serving {
            gateway: self.clone(),
            addresses,
            public: server.listen(public)?.run(),
            internal: internal_server.listen(internal)?.run(),
        })
    }
}

/// A running server.
pub struct Serving {
    gateway: Gateway,
    addresses: (SocketAddr, SocketAddr),
    public: Server,
    internal: Server,
}

impl Serving {
    /// Address of the public listener.
    #[must_use]
    pub const fn public_address(&self) -> SocketAddr {
        self.addresses.0
    }

    /// Address of the internal listener.
    #[must_use]
    pub const fn internal_address(&self) -> SocketAddr {
        self.addresses.1
    }

    /// What stops the server from elsewhere.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        Stopper { gateway: self.gateway.clone(), handles: [self.public.handle(), self.internal.handle()] }
    }

    /// Serves until stopped.
    pub async fn run(self) -> io::Result<()> {
        let (public, internal) = tokio::join!(self.public, self.internal);
        public.and(internal)
    }
}

/// Stops a server.
#[derive(Clone)]
pub struct Stopper {
    gateway: Gateway,
    handles: [ServerHandle; 2],
}

impl Stopper {
    /// From now on `/health/ready` says no and new requests are refused as `shutting_down`,
    /// while connections still come in: what a balancer needs to notice.
    pub fn drain(&self) {
        self.gateway.shared.drain();
    }

    /// Finishes what has begun, at most as long as the configuration says, and stops.
    pub async fn stop(&self) {
        self.drain();
        let [public, internal] = &self.handles;
        public.stop(true).await;
        internal.stop(false).await;
    }
}
