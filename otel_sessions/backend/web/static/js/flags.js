/** Facts about a span, as the rows of the API tell them. Pure. */

/** The numbers are records.Flag of the backend. */
export const Flag = {
  OPEN: 1,
  LATE: 2,
  FORCED: 4,
  PLACEHOLDER: 8,
  SYNTHETIC: 16,
  EXCEPTION: 32,
  CONTENT: 64,
  LINKED: 128,
};

export const ERROR = 2; // OTLP's status code
