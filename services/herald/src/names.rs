//! Names as deliver looks them up, for manage, which knows nothing of deliver.

use herald_deliver::{EgressError, Lookup};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;

#[derive(Debug)]
pub(crate) struct Names(Lookup);

impl Names {
    pub(crate) fn new(dns: &[SocketAddr]) -> Result<Self, EgressError> {
        Lookup::new(dns).map(Self)
    }
}

impl herald_manage::Names for Names {
    fn addresses<'a>(&'a self, name: &'a str) -> Pin<Box<dyn Future<Output = Vec<IpAddr>> + Send + 'a>> {
        Box::pin(self.0.addresses(name))
    }
}
