//! Where a database is reached: what is told to whoever creates one.

use std::net::SocketAddr;

/// The public host: `--public-host`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublicHost {
    /// A domain below which each database has a name of its own: `shop.db.example.com`, with TLS.
    Names(String),
    /// A host that all share: a database is a path below it, `http://host:8080/db/shop/`.
    Paths {
        /// It speaks TLS.
        secure: bool,
        /// Host and port.
        authority: String,
    },
}

impl PublicHost {
    /// What a text says: `db.example.com`, or `http://host:8080`.
    ///
    /// # Errors
    /// A sentence, if it says neither.
    pub fn read(text: &str) -> Result<PublicHost, String> {
        let (scheme, host) = match text.split_once("://") {
            Some((scheme, rest)) => (Some(scheme), rest.strip_suffix('/').unwrap_or(rest)),
            None => (None, text),
        };
        if !crate::http::is_host(host) {
            return Err(format!("{text:?} is neither a domain nor http://host:port"));
        }
        match scheme {
            None => Ok(PublicHost::Names(host.to_owned())),
            Some("http") => Ok(PublicHost::Paths { secure: false, authority: host.to_owned() }),
            Some("https") => Ok(PublicHost::Paths { secure: true, authority: host.to_owned() }),
            Some(_) => Err("the public host is reached by http or https".into()),
        }
    }

    /// The address that is listened on, which is all that is known unless somebody says more.
    #[must_use]
    pub fn of_address(address: SocketAddr) -> PublicHost {
        PublicHost::Paths { secure: false, authority: address.to_string() }
    }

    /// `Hostname`: what tools put behind `libsql://` and `https://`.
    #[must_use]
    pub fn hostname(&self, name: &str) -> String {
        match self {
            PublicHost::Names(domain) => format!("{name}.{domain}"),
            PublicHost::Paths { authority, .. } => format!("{authority}/db/{name}"),
        }
    }

    /// What can be given to a client as it is. It ends with a slash: `@libsql/client` resolves paths
    /// against it.
    #[must_use]
    pub fn url(&self, name: &str) -> String {
        let secure = !matches!(self, PublicHost::Paths { secure: false, .. });
        let scheme = if secure { "https" } else { "http" };
        format!("{scheme}://{}/", self.hostname(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_with_and_without_a_scheme() {
        for (text, hostname, url) in [
            ("db.example.com", "shop.db.example.com", "https://shop.db.example.com/"),
            ("http://10.0.0.5:8080", "10.0.0.5:8080/db/shop", "http://10.0.0.5:8080/db/shop/"),
            ("https://example.com/", "example.com/db/shop", "https://example.com/db/shop/"),
        ] {
            let host = PublicHost::read(text).expect(text);
            assert_eq!((&*host.hostname("shop"), &*host.url("shop")), (hostname, url));
        }
        for text in ["", "ftp://example.com", "http://", "a b", "http://example.com/db"] {
            assert!(PublicHost::read(text).is_err(), "{text}");
        }
        let address = PublicHost::of_address("127.0.0.1:8080".parse().expect("an address"));
        assert_eq!(address.url("a"), "http://127.0.0.1:8080/db/a/");
    }
}
