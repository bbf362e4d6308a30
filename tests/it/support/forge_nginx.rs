//! The configuration of an upstream server: nginx before `git http-backend`, below several paths that differ in whom they
//! let in.

use std::net::SocketAddr;
use std::path::Path;

/// What is where.
pub(crate) struct Layout<'a> {
    /// The server's own files: `passwords` is read, `cgi` is the socket of fcgiwrap, `requests` the log.
    pub(crate) place: &'a Path,
    /// The repositories.
    pub(crate) repositories: &'a Path,
    /// Where to listen.
    pub(crate) address: SocketAddr,
    /// Where to listen behind TLS, with the certificate `pem` and the key `key` of the place.
    pub(crate) tls: Option<SocketAddr>,
    /// The directory of `git-http-backend`.
    pub(crate) backend: &'a str,
    /// Where `/moved/` leads.
    pub(crate) moved: &'a str,
}

impl Layout<'_> {
    /// Paths: `open` wants no credential, `closed` wants one, `half` wants one of who pushes, `plain` has no `.git`, `small`
    /// takes 64 KiB and hangs up on more; each number is answered with that status.
    ///
    /// While there is a file `ask.STATUS` or `push.STATUS` (401, 403, 500) in the place, advertisements, or pushes, get it.
    pub(crate) fn configuration(&self) -> String {
        let Self { address, moved, tls, .. } = self;
        let place = self.place.display();
        // As root nginx would give up its rights and then not reach the socket.
        let user = if nix::unistd::geteuid().is_root() { "user root;" } else { "" };
        let git = self.git();
        let tls = tls.map(|tls| {
            format!("listen {tls} ssl; ssl_certificate {place}/pem; ssl_certificate_key {place}/key;")
        });
        let tls = tls.unwrap_or_default();
        format!(
            "daemon off;
            {user}
            worker_processes 1;
            pid {place}/pid;
            error_log {place}/errors warn;
            events {{ worker_connections 256; }}
            http {{
                log_format plain '$request $status $http_authorization';
                access_log {place}/requests plain;
                client_body_temp_path {place}/body;
                fastcgi_temp_path {place}/fastcgi;
                proxy_temp_path {place}/proxy;
                scgi_temp_path {place}/scgi;
                uwsgi_temp_path {place}/uwsgi;
                server {{
                    listen {address}; {tls}
                    client_max_body_size 0;
                    set $switch ask;
                    if ($uri ~ /git-receive-pack$) {{ set $switch push; }}
                    if ($uri ~ /git-upload-pack$) {{ set $switch fetch; }}
                    if (-f {place}/$switch.401) {{ return 401; }}
                    if (-f {place}/$switch.403) {{ return 403; }}
                    if (-f {place}/$switch.500) {{ return 500; }}
                    location ~ ^/open(?<repository>/.*)$ {{ {git} }}
                    location ~ ^/closed(?<repository>/.*)$ {{
                        auth_basic upstream;
                        auth_basic_user_file {place}/passwords;
                        {git}
                    }}
                    location ~ ^/half(?<repository>/.*)$ {{
                        set $realm off;
                        if ($request_uri ~ git-receive-pack$) {{ set $realm upstream; }}
                        auth_basic $realm;
                        auth_basic_user_file {place}/passwords;
                        {git}
                    }}
                    location ~ ^/plain/(.*)\\.git/ {{ return 404; }}
                    location ~ ^/plain(?<repository>/.*)$ {{ {git} }}
                    location ~ ^/small(?<repository>/.*)$ {{
                        client_max_body_size 64k;
                        lingering_time 0;
                        {git}
                    }}
                    location /401/ {{ return 401; }}
                    location /403/ {{ return 403; }}
                    location /404/ {{ return 404; }}
                    location /429/ {{ return 429; }}
                    location /500/ {{ return 500; }}
                    location /503/ {{ return 503; }}
                    location /moved/ {{ return 301 {moved}; }}
                    location /page/ {{ default_type text/html; return 200 'please log in'; }}
                }}
            }}\n"
        )
    }

    fn git(&self) -> String {
        let Self { place, repositories, backend, .. } = self;
        let (place, repositories) = (place.display(), repositories.display());
        format!(
            "fastcgi_pass unix:{place}/cgi;
             # Or this server would show the credential in the environment of its own processes.
             fastcgi_pass_request_headers off;
             fastcgi_buffering off;
             fastcgi_param SCRIPT_FILENAME {backend}/git-http-backend;
             fastcgi_param GIT_PROJECT_ROOT {repositories};
             fastcgi_param GIT_HTTP_EXPORT_ALL 1;
             fastcgi_param GIT_PROTOCOL $http_git_protocol;
             fastcgi_param PATH_INFO $repository;
             fastcgi_param QUERY_STRING $query_string;
             fastcgi_param REQUEST_METHOD $request_method;
             fastcgi_param CONTENT_TYPE $content_type;
             fastcgi_param CONTENT_LENGTH $content_length;
             fastcgi_param HTTP_CONTENT_ENCODING $http_content_encoding;
             fastcgi_param REMOTE_USER $remote_user;
             fastcgi_param REMOTE_ADDR $remote_addr;
             fastcgi_param SERVER_PROTOCOL $server_protocol;"
        )
    }
}
