/**
 * The one place that decides which data may travel. Everything that serves, sends or stores data for others asks here;
 * nothing else compares categories. The categories are the charter's (Tapestry's): fully-open, unique-open, controlled,
 * sovereign, private.
 */

/**
 * Whether data of this category may be served, sent or stored on a relay. Only "fully-open" may, in this version; whatever
 * else the text is, known or not, may not.
 */
export function mayTravel(category: string): boolean {
  return category === "fully-open";
}
