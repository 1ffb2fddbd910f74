/** The bundled build of simple-peer, which needs no Node shims; its source import breaks silently under Vite. */
declare module "simple-peer/simplepeer.min.js" {
  import SimplePeer from "simple-peer";
  export default SimplePeer;
}
