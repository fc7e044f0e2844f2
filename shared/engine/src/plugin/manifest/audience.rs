//! What a credential of a plugin may be used for.

use std::collections::BTreeSet;

use url::Url;

use super::{Auth, Manifest, Runtime};

impl Manifest {
    /// Where and how a credential of the plugin is sent. The text is stored with each credential, and a credential is used
    /// only while the manifest gives the same text: a later version cannot send it elsewhere.
    pub(crate) fn audience(&self) -> String {
        let hosts: BTreeSet<&str> = self.hosts().collect();
        let hosts = hosts.into_iter().collect::<Vec<_>>().join(" ");
        let method = match &self.auth {
            Auth::None => "nothing".to_owned(),
            Auth::Oauth2(oauth) => format!("oauth2 of {} {:?}", oauth.authorization_url, oauth.issuer),
            Auth::ClientCredentials(_) => "client_credentials".to_owned(),
            Auth::ApiKey(key) => format!("api_key in {}", key.header.to_ascii_lowercase()),
            Auth::Basic(_) => "basic".to_owned(),
        };
        let provider = self.auth.provider().map(|provider| {
            let revocation = provider.revocation_url.as_ref().map(Url::as_str).unwrap_or_default();
            format!(" by {} {revocation}", provider.token_url)
        });
        let provider = provider.unwrap_or_default();
        let base = match &self.runtime {
            Runtime::Http { base_url } => base_url.origin().ascii_serialization(),
            Runtime::Native | Runtime::Container(_) | Runtime::Module(_) => "nowhere".to_owned(),
        };
        format!("{method}{provider} to {base} {hosts}")
    }
}
