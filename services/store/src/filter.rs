//! The first of two fences between tenants: the condition that every read query of a gateway has. The
//! second one is row-level security, which this one does not rely on (ADR 0017).

/// Whether queries name the network and the tenant that they read for: they do. Only the test that shows
/// what row-level security holds back by itself makes one that says no, and only under the feature
/// `unfiltered` is there a way to (ADR 0023).
#[derive(Debug, Clone, Copy)]
pub(crate) struct TenantFilter {
    #[cfg(feature = "unfiltered")]
    is_on: bool,
}

#[cfg(not(feature = "unfiltered"))]
impl TenantFilter {
    pub(crate) const ON: Self = Self {};

    pub(crate) const fn is_on(self) -> bool {
        true
    }
}

#[cfg(feature = "unfiltered")]
impl TenantFilter {
    pub(crate) const ON: Self = Self { is_on: true };
    pub(crate) const OFF: Self = Self { is_on: false };

    pub(crate) const fn is_on(self) -> bool {
        self.is_on
    }
}
