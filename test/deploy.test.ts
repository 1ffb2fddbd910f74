import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { expect, test, vi } from "vitest";
import { parse } from "yaml";
import { LENGTH_HEADER } from "../src/net/ledger.ts";
import { serveLedger } from "../src/net/serve-ledger.ts";
import { parseRelayConfig, type RelayConfig } from "../src/relay/config.ts";
import { listen, shut } from "../src/relay/http.ts";

const root = resolve(import.meta.dirname, "..");
const env: Readonly<Record<string, string>> = {
  HEDDLE_HOST: "relay.example.org",
  NATS_PASSWORD: "0123456789abcdef",
  TURN_SECRET: "fedcba9876543210",
};

interface Service {
  readonly command: readonly string[];
  readonly volumes?: readonly string[];
  readonly ports?: readonly string[];
  readonly networks: readonly string[] | { readonly inside: { readonly ipv4_address: string } };
  readonly secrets?: readonly string[];
  readonly restart: string;
}

interface Compose {
  readonly services: Readonly<Record<string, Service>>;
  readonly volumes: object;
  readonly secrets: Readonly<Record<string, { readonly environment: string }>>;
}

const read = (file: string): string => readFileSync(join(root, "deploy", file), "utf8");

/** As an engine reads it: variables replaced, anchors merged. */
function compose(): Compose {
  const whole = read("compose.yaml").replaceAll(/\$\{(\w+)(?::\?)?\}/g, (_, name: string) => {
    expect(env, `compose.yaml asks for ${name}`).toHaveProperty(name);
    return env[name] as string;
  });
  return parse(whole, { merge: true }) as Compose;
}

/** The words of an instruction in the exec form. */
function words(instruction: string): string[] {
  const text = read("Containerfile").replaceAll("\\\n", " ");
  const [, list] = new RegExp(`(?:^| )${instruction} (\\[.*\\])$`, "m").exec(text) ?? [];
  return JSON.parse(list ?? "null") as string[];
}

const relays = Object.entries(compose().services).filter(([name]) => name.startsWith("relay"));
const flagsOf = (service: Service): RelayConfig => {
  const entry = words("ENTRYPOINT");
  const flags = entry.slice(entry.indexOf("src/relay/main.ts") + 1);
  return parseRelayConfig([...flags, ...service.command], {}, false) as RelayConfig;
};

test("the container starts a relay of this tree with flags that it takes, and asks it where its metrics are", () => {
  const [node, ...rest] = words("ENTRYPOINT");
  expect(node).toBe("node_modules/.bin/node");
  expect(readFileSync(join(root, "tools", "run.mjs"), "utf8")).toContain(`"${rest[0]}", "${rest[1]}"`);
  const config = parseRelayConfig(rest.slice(3), {}, false) as RelayConfig;
  expect(config).toMatchObject({ host: "0.0.0.0", port: 8787, metricsHost: "127.0.0.1", contributor: false });
  expect(read("Containerfile")).toContain(`VOLUME ${config.dir}\n`);
  expect(words("CMD").join(" ")).toContain(`http://127.0.0.1:${config.metricsPort}/healthz`);
});

test("compose.yaml starts three relays of one run with flags that they take, each with a folder of its own", () => {
  expect(relays.length).toBe(3);
  for (const [name, service] of relays) {
    const config = flagsOf(service);
    expect(config.nats?.shown).toContain("nats:4222/heddle");
    expect(config.ice.servers.map(({ url }) => url)).toContain(`turn:${env["HEDDLE_HOST"]}:3478`);
    expect(config.ice.secretFile).toBe(`/run/secrets/${service.secrets?.[0]}`);
    expect(config.proxyHeader).toBe("X-Forwarded-For");
    expect(service.volumes).toEqual([`${name}:${config.dir}`]);
    expect(service.ports).toBeUndefined();
  }
  const { services, secrets } = compose();
  expect(secrets["turn"]?.environment).toBe("TURN_SECRET");
  expect(services["turn"]?.command).toContain(`--static-auth-secret=${env["TURN_SECRET"]}`);
});

test("every service of compose.yaml is started again however it ended, so that a reboot leaves none behind", () => {
  const { services } = compose();
  expect(new Set(Object.values(services).map(({ restart }) => restart))).toEqual(new Set(["always"]));
});

const SYSTEMD = "/usr/bin/systemd-analyze";

test("systemd finds nothing wrong with the unit, but for the folder of the checkout", ({ skip }) => {
  skip(!existsSync(SYSTEMD), `there is no ${SYSTEMD} here, which the system package systemd has`);
  const dir = mkdtempSync(join(tmpdir(), "heddle-unit-"));
  const verify = (unit: string): { code: number | null; said: string } => {
    const file = join(dir, "heddle-relay.service");
    writeFileSync(file, unit);
    const { status, stderr, stdout } = spawnSync(SYSTEMD, ["verify", file], { encoding: "utf8" });
    return { code: status, said: stdout + stderr };
  };
  try {
    const unit = read("heddle-relay.service").replaceAll("/opt/heddle/", `${root}/`);
    expect(unit).toContain(`ExecStart=${root}/node_modules/.bin/node `);
    expect(verify(unit)).toEqual({ code: 0, said: "" });
    expect(verify(unit.replace("Restart=", "Restarts=")).said, "what is wrong is seen").toContain("Restarts");
  } finally {
    rmSync(dir, { recursive: true });
  }
});

test("the unit starts a relay of this tree with flags that it takes", () => {
  const [, start = ""] = /^ExecStart=(.*)$/m.exec(read("heddle-relay.service").replaceAll("\\\n", " ")) ?? [];
  const flags = start.split(/\s+/);
  const config = parseRelayConfig(flags.slice(flags.indexOf("src/relay/main.ts") + 1), {}, false) as RelayConfig;
  expect(config).toMatchObject({ host: "127.0.0.1", dir: "/var/lib/heddle/relay", contributor: false, log: "json" });
});

test("the proxy asks relays whether they serve for the ledger's length, and for no entry", async () => {
  const [, path] = /^\s*health_uri (\S+)$/m.exec(read("Caddyfile")) ?? [];
  const address = new URL(path ?? "", "http://relay");
  expect(address.pathname).toBe("/api/ledger");
  const log = { length: () => Promise.resolve(3), read: vi.fn(() => Promise.resolve([])) };
  const server = createServer((_request, response) => void serveLedger(response, { log, query: address.searchParams }));
  const port = await listen(server, 0, "127.0.0.1");
  const response = await fetch(`http://127.0.0.1:${port}`);
  expect([response.status, response.headers.get(LENGTH_HEADER)]).toEqual([200, "3"]);
  expect((await response.arrayBuffer()).byteLength).toBeLessThan(100);
  expect(log.read).not.toHaveBeenCalled();
  await shut(server);
});

test("the proxy knows every relay at its port, and coturn carries packets to them alone", () => {
  const caddy = read("Caddyfile");
  const { services } = compose();
  const addresses = relays.map(([, { networks }]) =>
    "inside" in networks ? networks.inside.ipv4_address : "of no relay",
  );
  relays.forEach(([name, service]) => expect(caddy).toContain(`${name}:${flagsOf(service).port}`));
  expect(services["turn"]?.command).toContain(`--allowed-peer-ip=${addresses[0]}-${addresses.at(-1)}`);
  expect(services["turn"]?.command).toContain("--denied-peer-ip=0.0.0.0-255.255.255.255");
});
