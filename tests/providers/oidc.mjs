// A real OpenID provider for one test (npm's oidc-provider), with a resource API beside it and a control API that makes
// it fail on request. It says its issuer in one line of JSON once it listens, and ends when its stdin does, so that a
// test that was killed leaves nothing behind. tests/behaviour/oidc.rs starts it.

import { once } from 'node:events';
import { createServer } from 'node:http';

// What the library says here is advice for production; console.info would even go where the issuer belongs.
console.info = console.warn = () => {};
const { Provider } = await import('oidc-provider');

const options = {
  clients: [], // client metadata, by the names of RFC 7591
  scopes: ['openid', 'offline_access', 'read', 'write'],
  rotate: true, // a refresh token works once
  refresh: 'always', // or 'offline_access': only with that scope, which needs prompt=consent
  access_ttl_s: 3600,
  iss: true, // RFC 9207
  ...JSON.parse(process.argv[2] ?? '{}'),
};
process.stdin.on('close', () => process.exit()).resume();

const server = createServer();
server.keepAliveTimeout = 0; // or a slow test meets a connection that was closed a moment ago
await once(server.listen(0, '127.0.0.1'), 'listening');
const issuer = `http://127.0.0.1:${server.address().port}`;

const provider = new Provider(issuer, {
  clients: options.clients,
  scopes: options.scopes,
  pkce: { required: () => true }, // S256 is the only method that the library has
  rotateRefreshToken: options.rotate,
  issueRefreshToken: (_ctx, client, source) =>
    client.grantTypeAllowed('refresh_token') && (options.refresh === 'always' || source.scopes.has('offline_access')),
  expiresWithSession: () => false,
  ttl: { AccessToken: options.access_ttl_s, ClientCredentials: options.access_ttl_s },
  features: {
    devInteractions: { enabled: false },
    revocation: { enabled: true },
    clientCredentials: { enabled: true },
  },
  interactions: { url: (_ctx, interaction) => `/interaction/${interaction.uid}` },
  // Whoever says a name has an account of that name.
  findAccount: (_ctx, id) => ({ accountId: id, claims: () => ({ sub: id, name: id }) }),
});

const counts = { calls: {}, results: {}, reuses: 0, revocations: 0, resource: {}, effects: 0 };
const count = (of, key) => (of[key] = (of[key] ?? 0) + 1);
provider.on('grant.error', (_ctx, error) => {
  if (error.error_detail === 'refresh token already used') counts.reuses += 1;
});
provider.on('server_error', (_ctx, error) => console.error(error));

async function read(request) {
  let body = '';
  for await (const chunk of request.setEncoding('utf8')) body += chunk;
  return body;
}

// A stand-in's switch: what the token endpoint does with its next calls.
const MODES = ['ok', 'down', 'error', 'hang_up_before', 'hang_up_after', 'hold'];
let fault = { mode: 'ok', calls: 0 };
let held = [];
let waiting = [];
const tellWaiting = () => (waiting = waiting.filter(({ calls, tell }) => held.length < calls || tell()));

// One at a time, as a database would have it: two uses of one refresh token never both find it unused.
let turn = Promise.resolve();
const inTurn = (work) => (turn = turn.catch(() => {}).then(work));

async function tokenEndpoint(ctx, next) {
  ctx.req.body = await read(ctx.req); // where the library looks when the stream was read
  const grant = new URLSearchParams(ctx.req.body).get('grant_type') ?? 'none';
  count(counts.calls, grant);
  const mode = fault.calls > 0 ? fault.mode : 'ok';
  fault.calls -= 1;
  const hangUp = () => {
    ctx.respond = false;
    ctx.req.socket.destroy();
  };
  let result = mode;
  switch (mode) {
    case 'down': // a stand-in's switch
      ctx.status = 503;
      ctx.body = 'down for maintenance';
      break;
    case 'error': // a stand-in's switch
      ctx.status = 500;
      ctx.type = 'html';
      ctx.body = '<!doctype html><title>Error</title><h1>Internal Server Error</h1>';
      break;
    case 'hang_up_before': // a stand-in's switch: nothing was done
      hangUp();
      break;
    case 'hang_up_after': // a stand-in's switch: it is done, and the refresh token used up, but nobody hears of it
      await inTurn(next);
      hangUp();
      break;
    case 'hold': // a stand-in's switch
      await new Promise((go) => {
        held.push(go);
        tellWaiting();
      });
    // falls through
    default:
      await inTurn(next);
      result = ctx.body?.error ?? String(ctx.status);
  }
  count((counts.results[grant] ??= {}), result);
}

const escape = (text) => text.replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);

async function interaction(ctx) {
  const { params, session, grantId } = await provider.interactionDetails(ctx.req, ctx.res);
  if (ctx.method !== 'POST') {
    const who = session ? `<p>Signed in as ${escape(session.accountId)}.</p>` : '<label>Account <input name="login"></label>';
    ctx.type = 'html';
    ctx.body = `<!doctype html><title>Consent</title>
<h1>${escape(params.client_id)} asks for ${escape(params.scope ?? 'access')}</h1>
<form method="post">${who}
<button name="decision" value="allow">Allow</button> <button name="decision" value="deny">Deny</button></form>`;
    return;
  }
  const form = new URLSearchParams(await read(ctx.req));
  const accountId = session?.accountId ?? form.get('login');
  let result = { error: 'access_denied', error_description: 'the person said no' };
  if (form.get('decision') === 'allow') {
    if (!accountId) ctx.throw(400, 'which account?');
    const grant = (grantId && (await provider.Grant.find(grantId))) || new provider.Grant({ accountId, clientId: params.client_id });
    if (params.scope) grant.addOIDCScope(params.scope);
    result = { login: { accountId }, consent: { grantId: await grant.save() } };
  }
  ctx.status = 303;
  ctx.redirect(await provider.interactionResult(ctx.req, ctx.res, result, { mergeWithLastSubmission: false }));
}

async function resource(ctx, answer) {
  const given = /^Bearer (.+)$/i.exec(ctx.get('authorization'))?.[1];
  const token = given && ((await provider.AccessToken.find(given)) ?? (await provider.ClientCredentials.find(given)));
  if (token) {
    ctx.body = answer(token);
  } else {
    ctx.status = 401;
    ctx.set('WWW-Authenticate', given ? 'Bearer error="invalid_token"' : 'Bearer');
    ctx.body = { error: 'invalid_token' };
  }
  count(counts.resource, ctx.status);
}

const RESOURCES = {
  'GET /api/me': (token) => ({ name: token.accountId ?? token.clientId, scope: token.scope ?? '' }),
  'POST /api/echo': () => ({ count: (counts.effects += 1) }),
};

const CONTROLS = {
  'GET /control/counts': () => counts,
  // A stand-in's switch: one more client. Its redirect URI may not have been known at the start.
  'POST /control/clients': (client) => provider.Client.adapter.upsert(client.client_id, client),
  // A stand-in's switch: an access token ends before the time that the client was told.
  'POST /control/expire': async ({ access_token }) => (await provider.AccessToken.find(access_token)).destroy(),
  // A stand-in's switch.
  'POST /control/token-endpoint': ({ mode, calls }) => {
    if (!MODES.includes(mode)) throw new Error(`no such mode: ${mode}`);
    fault = { mode, calls };
  },
  // Answers once that many calls are held.
  'POST /control/held': ({ calls }) =>
    new Promise((tell) => {
      waiting.push({ calls, tell });
      tellWaiting();
    }),
  // A stand-in's switch: lets every held call go, and holds no more.
  'POST /control/release': () => {
    fault = { mode: 'ok', calls: 0 };
    held.splice(0).forEach((go) => go());
  },
};

provider.use(async (ctx, next) => {
  const route = `${ctx.method} ${ctx.path}`;
  if (route === 'POST /token') return tokenEndpoint(ctx, next);
  if (ctx.path.startsWith('/interaction/')) return interaction(ctx);
  if (RESOURCES[route]) return resource(ctx, RESOURCES[route]);
  if (CONTROLS[route]) {
    const said = await CONTROLS[route](JSON.parse((await read(ctx.req)) || '{}'));
    ctx.body = said ?? {};
    return;
  }
  await next();
  if (route === 'POST /token/revocation' && ctx.status === 200) counts.revocations += 1;
  if (!options.iss) {
    // A stand-in's switch: the library always sends it.
    delete ctx.body?.authorization_response_iss_parameter_supported;
    const location = URL.parse(ctx.response.get('location'));
    if (location?.searchParams.has('iss')) {
      location.searchParams.delete('iss');
      ctx.set('location', location.href);
    }
  }
});

server.on('request', provider.callback());
console.log(JSON.stringify({ issuer }));
